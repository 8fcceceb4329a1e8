"""LiteLLM's configuration, rendered from registrations. Pure: what comes in decides what comes out.

It says nothing of which model is up, so a model that is scaled does not roll the gateway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.serving.registration import Registration
from models.facts import PerAudioSecond, PerQuery, PerToken, Price
from models.tasks import TASKS, Task

# LiteLLM's client for the route of each task.
PROVIDERS = {
    Task.CHAT: "openai",
    Task.AGENT: "openai",
    Task.FIM: "text-completion-openai",
    Task.VISION: "openai",
    Task.EMBEDDING: "openai",
    Task.RERANK: "hosted_vllm",  # as servers.py has it
    Task.TRANSCRIPTION: "openai",
}
_AT_ROOT = frozenset({"hosted_vllm"})  # clients that put their route behind the server's address, without /v1
_MILLION = 1_000_000


def price_fields(price: Price) -> dict[str, float]:
    """LiteLLM's price fields, in US dollars per token, second or query.

    Without them a self-hosted model costs nothing and no budget ever binds.
    """
    match price:
        case PerToken():
            fields = {
                "input_cost_per_token": price.input_usd_per_mtok / _MILLION,
                "output_cost_per_token": price.output_usd_per_mtok / _MILLION,
            }
            if price.cached_input_usd_per_mtok is not None:
                fields["cache_read_input_token_cost"] = price.cached_input_usd_per_mtok / _MILLION
            return fields
        case PerAudioSecond():
            return {"input_cost_per_second": price.usd_per_second, "output_cost_per_second": 0.0}
        case PerQuery():
            return {"input_cost_per_query": price.usd_per_query}


def model_entry(model: Registration) -> dict[str, Any]:
    """One element of `model_list`."""
    client = PROVIDERS[model.task]
    return {
        "model_name": model.alias,
        "litellm_params": {
            "model": f"{client}/{model.served_name}",
            "api_base": model.api_base.removesuffix("/v1") if client in _AT_ROOT else model.api_base,
            "api_key": "os.environ/UPSTREAM_API_KEY",
            **price_fields(model.price),
            **model.defaults.asked,  # a request's own come after them
            # Of OpenAI's own models only the newest take it, so LiteLLM drops it for others, and never says so.
            **({"allowed_openai_params": ["dimensions"]} if model.shorter_vectors else {}),
            **({"max_parallel_requests": model.max_parallel} if model.max_parallel else {}),
        },
        "model_info": {
            "mode": TASKS[model.task].mode,
            "max_input_tokens": model.context,
            # Without it LiteLLM guesses from the model's name, and reserves budget for the guess.
            "max_output_tokens": model.context,
            **({"supports_function_calling": True} if model.tools else {}),
            **({"supports_vision": True} if model.images else {}),
            **({"supports_response_schema": True} if model.constrains else {}),
            "owned_by": model.owner,
        },
    }


def gateway_config(models: Sequence[Registration], *, pool: int, spend_log_days: int) -> dict[str, Any]:
    """The whole of config.yaml. Secrets are named, never held: LiteLLM reads them from its environment.

    `pool` is the number of connections to the database.
    """
    return {
        "model_list": [model_entry(model) for model in models],
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "database_url": "os.environ/DATABASE_URL",
            # Models added at run time by the admin API live in the database, beside those of the catalog.
            "store_model_in_db": True,
            "database_connection_pool_limit": pool,
            "maximum_spend_logs_retention_period": f"{spend_log_days}d",
            # By the clock: an interval would begin anew with every start, and a proxy that rolls daily never clean up.
            "maximum_spend_logs_cleanup_cron": "17 * * * *",
            # A row for every refused call would let anybody fill the disk, also without a key.
            "disable_error_logs": True,
        },
        "litellm_settings": {
            # Parameters that an engine does not know are dropped instead of failing the request.
            "drop_params": True,
            # Modules beside the rendered file: what is open, what a model that is off answers, how streams are counted,
            # what a refusal by budget means, and what LiteLLM does not know of the servers here.
            "callbacks": [
                "door.hook",
                "model_state.hook",
                "stream_usage.hook",
                "budget_refusal.hook",
                "servers.hook",
            ],
            # A client cannot opt out of being billed.
            "global_disable_no_log_param": True,
            # Prompts and answers stay out of logs.
            "turn_off_message_logging": True,
            # One deployment an alias: a retry or a cool-down can only make an outage longer.
            "num_retries": 0,
            "request_timeout": 600,
        },
        "router_settings": {"disable_cooldowns": True, "num_retries": 0},
    }
