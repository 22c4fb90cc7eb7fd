-- Which server this slot is on, and how many replicas it has at hand.
-- KEYS: 1 any key of the slot
return { currentServer(), replicasAtHand() }
