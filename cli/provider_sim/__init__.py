"""`provider-sim`: a stateful stand-in for Stripe's, PayPal's and the mock provider's own HTTP (contract §7).

Room: cli. A process of its own and the judge of what money moved: nothing here imports core/, codecs/ or adapters/,
so that a mistake of the service cannot be made here as well. Standard library, aiohttp, orjson, click, and cryptography
for PayPal's certificates.

    ledger        what happened, one JSON object a line, on disk before any answer leaves
    world         the objects, rebuilt from the ledger; what becomes due later
    idempotency   the answers kept under their keys
    faults        which requests go wrong, and how
    webhooks      signed events on their way out
    door          an HTTP request -> an operation -> an answer, with the faults and the latency between
    control       /_sim/...: the shopper, the dashboard, the bank
    mock          /mock/...      stripe*  /v1/...      paypal*  /v1/oauth2, /v1/notifications, /v2/...
    server        one process of all that

A provider is a file with `register(app, world)`; `server.PROVIDERS` lists them.
"""
