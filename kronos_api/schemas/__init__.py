"""HTTP in and out: models and bounds, from the bytes of a body to arrays, and back.

`requests`, `responses` and `status` are the models, `examples` are examples of them. `parsing` goes
from a body to checked series, with errors by `field_errors`; `serializing` writes responses.
"""
