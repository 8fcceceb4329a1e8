"""`ops plan`: the same program as `pulumi preview`, in this process, without an account, a cluster or the CLI."""
