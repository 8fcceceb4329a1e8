"""`ops plan`: the same program as `pulumi preview`, in this process, without an account, a cluster or the CLI."""

REFUSED = 2  # exit code of a plan that would not deploy
