"""What NSML installs before it runs main.py; pip reads pyproject.toml and never this file."""

from setuptools import setup

setup(
    name="kit-medical",
    version="0.1.0",
    install_requires=[
        "keras>=3.13.2",
        "tensorflow>=2.20",
        "efficientnet>=1.1.1",
        "opencv-python-headless>=4.13.0.90",
        "numpy>=2.0.2",
        "pandas>=2.2.2",
        "pyarrow>=18.0",
        "scikit-learn>=1.6.1",
        "scipy>=1.16.3",
        "tensorboard>=2.20",
        "h5py>=3.14",
        "matplotlib>=3.10",
        "pydantic>=2.11",
        "pyyaml>=6.0.2",
        "typer>=0.20.1",
        "tqdm>=4.67",
        "joblib>=1.5",
        "threadpoolctl>=3.1",
    ],
)
