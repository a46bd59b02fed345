"""Plugins that are chained behind others, one file each (cni.chain.verbs says what each has to offer)."""
