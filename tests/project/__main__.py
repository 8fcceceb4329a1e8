"""Entry point of `pulumi up` and of `ops plan`."""

from stacks.program import main

main()
