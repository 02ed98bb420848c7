"""Files, manifests, bundles and the runtime's base class: what everything else here builds on."""
