"""From what a broker carries to the sources of a workflow file. Pure: messages in, sources out.

`survey` keeps a bounded sample of what each topic says, `ours` knows what a service of ours publishes, `gateways`
recognises the gateways that have a codec, `payloads` says what any other payload is, `patterns` puts topics together
that differ in an identifier, `examples` adds something to compute, and `discover` is all of it.
"""
