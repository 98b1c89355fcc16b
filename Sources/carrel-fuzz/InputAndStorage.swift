import Devices

/// What a guest, and partly a viewer, may do to input, storage and virtio devices.
let inputAndStorageTargets: [String: FuzzTarget] = [
  "i8042": { bytes, count in InputFuzzing.run(input(bytes, count)) },
  "ide": { bytes, count in StorageFuzzing.run(input(bytes, count)) },
  "virtio-cards": { bytes, count in VirtioCardsFuzzing.run(input(bytes, count)) },
  "virtio-blk": { bytes, count in VirtioFuzzing.run(input(bytes, count)) },
]
