"""Versions of the registered model, and which of them is the champion.

`settings` params.yaml's section; `gate` the decision, as pure functions; `gate_forecast` what is known of the decision
before a training; `registration` its effects; `versions` what is registered; `alias_history` who moved which alias;
`promotion` the champion by hand, and back; `open_model` a generator from any address; `comparison` two of them;
`verification` recorded digests against a checkout.
"""
