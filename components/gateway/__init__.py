"""The LiteLLM gateway, its database, its teams and keys; the programs that run in its pods lie beside."""
