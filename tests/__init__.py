"""The tests of `stabilize`."""
