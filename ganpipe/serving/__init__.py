"""A page to look at: samples of the champion and a small JSON API, over HTTP.

`query` checks the parameters of a request; `version` holds one registered version in memory; `follower` finds which
version that is now; `uploads` takes pictures that clients send; `batching` puts many requests into one forward pass;
`card` renders the model's card; `limits` restricts what a client may do; `app` handles the addresses; `server` runs the
process. `page/` holds the template, style and script.
"""
