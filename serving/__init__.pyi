from .app import create_app as create_app
from .config import ServingConfig as ServingConfig
from .messages import Recommendations as Recommendations
from .messages import Request as Request
from .pipeline.pipeline import Pipeline as Pipeline
from .processes.supervisor import serve as serve
