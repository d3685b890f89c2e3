"""The gateway's own database: tokens, locations, requests, agents, idempotency keys."""
