"""What several tests share: builders, processes, disks."""
