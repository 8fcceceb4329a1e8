"""What every object in a cluster has in common: labels, places, policies, secrets, sizes."""
