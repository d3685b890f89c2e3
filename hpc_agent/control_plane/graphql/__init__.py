"""The agent API's GraphQL half: schema.graphql, and one module of resolvers per domain.

To add an operation, add its lines to schema.graphql and a function to the module of its domain.
Resolvers run in a worker thread, one document at a time, and may block.
"""
