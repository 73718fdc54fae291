"""A faster forward pass of ``mesm_core.model`` with the same parameters: packed frames, and kernels for the CPU.

``mesm.accelerate`` chooses it for models that consist of exactly the classes in ``table``. The docstring of each
function names the function of ``mesm_core.model`` that computes the same.
"""
