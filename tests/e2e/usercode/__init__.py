"""Small code locations that do what people's code does, one file a theme."""
