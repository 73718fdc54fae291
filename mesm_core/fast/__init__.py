"""A faster forward of ``mesm_core.model`` over the same parameters: packed frames, and kernels for the CPU.

``mesm.accelerate`` chooses it for models made of exactly the classes in ``table``. Each function here says which one of
``mesm_core.model`` it equals.
"""
