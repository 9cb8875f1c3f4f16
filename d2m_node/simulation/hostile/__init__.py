"""What nodes that cheat do: sellers with their data and updates, CONE nodes with their votes."""
