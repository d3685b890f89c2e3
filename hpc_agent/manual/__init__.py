"""The manual: pages of docs/ and pages made from the code, for the terminal and for the site."""
