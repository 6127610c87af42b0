"""Versions of the registered model, and which of them is the champion.

`settings` is params.yaml's section; `gate` makes the decision, as pure functions; `gate_forecast` tells what is known
of the decision before a training; `registration` registers a version and carries the decision out; `versions` reads
what is registered; `alias_history` records who moved which alias; `promotion` compares registered versions, promotes
by hand and rolls back; `open_model` opens a generator from any address; `comparison` compares two of them;
`verification` compares recorded digests with those of a checkout.
"""
