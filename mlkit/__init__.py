__version__ = "0.2.0"


def load_ipython_extension(ip):
    "What `%load_ext mlkit` calls: the magics `%%config` and `%config`, see `mlkit.magic`."
    from mlkit.magic import load
    load(ip)
