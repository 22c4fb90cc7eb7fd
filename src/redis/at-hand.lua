-- Which server holds this slot, and how many replicas it has at hand.
-- KEYS: 1 any key of the slot
return { currentServer(), replicasAtHand() }
