"""Where text comes from.

A document is a str that stands for bytes as `bytes.decode("utf-8", "surrogateescape")` reads them, so that any file
comes back exactly.
"""

from lmx_core.data.datasets.files import as_text as as_text
from lmx_core.data.datasets.python_stdlib import PythonStdlib as PythonStdlib
from lmx_core.data.datasets.shakespeare import Published as Published
from lmx_core.data.datasets.shakespeare import Shakespeare as Shakespeare
from lmx_core.data.datasets.shakespeare import ShakespeareOptions as ShakespeareOptions
from lmx_core.data.datasets.shakespeare import cache_directory as cache_directory
from lmx_core.data.datasets.text_files import TextFiles as TextFiles
from lmx_core.data.datasets.text_files import TextFilesOptions as TextFilesOptions
