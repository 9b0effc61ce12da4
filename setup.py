"Everything is said in settings.ini; this file only hands it to setuptools."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
config = ConfigParser(delimiters=["="])
config.read(here / "settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    keywords=cfg["keywords"],
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    url=cfg["git_url"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    packages=find_packages(include=["mlkit", "mlkit.*"]),
    package_data={"mlkit": cfg["package_data"].split()},
    include_package_data=False,
    python_requires=">=" + cfg["min_python"],
    install_requires=cfg["requirements"].split(),
    extras_require={"dev": cfg["dev_requirements"].split(),
                    "trackers": cfg["tracker_requirements"].split(),
                    "search": cfg["search_requirements"].split(),
                    "postgresql": cfg["postgresql_requirements"].split(),
                    "rich": cfg["rich_requirements"].split(),
                    "lightning": cfg["lightning_requirements"].split()},
    # nbdev finds a library's index of names here, for the links between its pages.
    entry_points={"console_scripts": cfg["console_scripts"].split(),
                  "nbdev": ["mlkit=mlkit._modidx:d"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
)
