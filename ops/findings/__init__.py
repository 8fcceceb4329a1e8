"""What is wrong with a deployment, from the objects of the Kubernetes API: what `ops doctor` and others end in."""
