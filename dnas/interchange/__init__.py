"""Networks in the notations of other projects: timm's block strings, ``net.config`` of ProxylessNAS and Once-for-all, the 22
indices of HW-NAS-Bench."""
