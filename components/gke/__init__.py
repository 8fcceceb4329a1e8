"""The cloud half: network, cluster, node pools, image mirror, and what keeps the database beyond the cluster."""
