"""The data path: the relay loop and its sockets. It knows no ECS, no Kubernetes, no asyncio."""
