"""The web page and the API: `photochrom serve`, or `router` inside another FastAPI application."""

from photochrom.server.api import router
from photochrom.server.app import create_app
from photochrom.server.settings import Settings

__all__ = ["Settings", "create_app", "router"]
