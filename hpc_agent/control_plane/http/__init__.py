"""The agent API over HTTP: authentication, GraphQL, uploads."""
