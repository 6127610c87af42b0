"""A page to look at: samples of the champion and a small JSON API, over HTTP.

`query` what may be asked for; `version` one registered version in memory; `follower` which version that is now;
`uploads` pictures that clients send; `batching` many requests in one forward pass; `card` the model's card; `limits`
what a client may do; `app` the addresses; `server` the process. `page/` holds the template, style and script.
"""
