"""Files, manifests, bundles and the base class of all runtimes. Imports no other folder of this package."""
