"""What Amazon ECS means: resources, operations, the scheduler. Pure: values in, values out."""
