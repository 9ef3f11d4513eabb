"""What goes over the wire: models and bounds, from bytes to arrays and back.

`requests` and `responses` are the models, `examples` shows them, `candles` holds the rules of
values, `reading` takes bodies apart and `writing` puts answers together.
"""
