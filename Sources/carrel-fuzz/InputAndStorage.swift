import Devices

/// What a guest, and partly a viewer, may do to input, storage, sound, USB and virtio devices.
let inputAndStorageTargets: [String: FuzzTarget] = [
  "i8042": { bytes, count in InputFuzzing.run(input(bytes, count)) },
  "ac97": { bytes, count in
    precondition(AC97Fuzzing.run(input(bytes, count)), "the controller went astray")
  },
  "ide": { bytes, count in StorageFuzzing.run(input(bytes, count)) },
  "virtio-cards": { bytes, count in VirtioCardsFuzzing.run(input(bytes, count)) },
  "usb": { bytes, count in
    precondition(XHCIFuzzing.run(input(bytes, count)), "the controller did not recover")
  },
  "virtio-blk": { bytes, count in VirtioFuzzing.run(input(bytes, count)) },
]
