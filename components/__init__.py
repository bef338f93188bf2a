"""Kubeflow steps, one thin file each, named as the function they call."""
