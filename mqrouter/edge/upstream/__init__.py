"""Model servers as tiers: one client, one file per wire form, every failure translated once."""

from mqrouter.edge.upstream.client import UpstreamClient
from mqrouter.edge.upstream.ollama import OllamaWire
from mqrouter.edge.upstream.openai import OpenAiWire
from mqrouter.edge.upstream.options import OllamaOptions, UpstreamOptions

__all__ = ["OllamaOptions", "OllamaWire", "OpenAiWire", "UpstreamClient", "UpstreamOptions"]
