"""The Hugging Face hub: repositories as folders, and folders as repositories."""

from lmx_hf.hub.explained import HubError as HubError
from lmx_hf.hub.repository import ADAPTER as ADAPTER
from lmx_hf.hub.repository import MODEL as MODEL
from lmx_hf.hub.repository import Kind as Kind
from lmx_hf.hub.repository import fetch as fetch
