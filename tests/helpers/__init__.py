"""What tests share: waiting, ports, processes, servers, services, networks. tests/README.md lists it with the fixtures."""
