import Devices
import Disk
import Foundation
import LinuxSystem

/// virtio-blk over an image beside qemu-storage-daemon's vhost-user-blk export of the same
/// file, which is in the page cache. One driver in this process, with the same ring, requests
/// and queue depth, drives both; each wakes the other by eventfd, as KVM would. The daemon has
/// no packed rings, so those stand beside its split ring.
func measureDisks(_ settings: Settings) throws -> [Comparison] {
  let size = 256 << 20
  try FileManager.default.createDirectory(atPath: "build", withIntermediateDirectories: true)
  let path = "build/carrel-bench-\(getpid())"
  let images = [
    BenchImage(path: path + ".img", size: size, isRaw: true),
    BenchImage(path: path + ".qcow2", size: size, isRaw: false),
  ]
  defer { for image in images { unlink(image.path) } }
  try images[0].make()
  try images[1].make(of: images[0].path)
  return try images.flatMap { image in
    try DiskDriver.Workload.all.flatMap { try measure(image, $0, settings) }
  }
}

extension DiskDriver.Workload {
  fileprivate static let all = [
    Self(name: "random read of 4 KiB", isWrite: false, isRandom: true, blockSize: 4096, depth: 32),
    Self(name: "random write of 4 KiB", isWrite: true, isRandom: true, blockSize: 4096, depth: 32),
    Self(name: "sequential read", isWrite: false, isRandom: false, blockSize: 256 << 10, depth: 8),
    Self(name: "sequential write", isWrite: true, isRandom: false, blockSize: 256 << 10, depth: 8),
  ]
}

private struct BenchImage {
  let path: String
  let size: Int
  let isRaw: Bool

  var format: String { isRaw ? "raw" : "qcow2" }

  func make() throws { try ImageMark.write(path, size: size) }

  /// A qcow2 image with the same bytes.
  func make(of raw: String) throws {
    try Qcow2Image.create(path, Qcow2Options(byteCount: UInt64(size)))
    let image = try Qcow2Image.open(path, isReadOnly: false, BackingPolicy())
    let file = try FileDescriptor.open(raw)
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    for offset in stride(from: 0, to: UInt64(size), by: bytes.count) {
      // SAFETY: the buffer is used only within the call.
      try bytes.withUnsafeMutableBytes {
        _ = try file.read(into: $0, offset: offset)
        try image.write(from: [UnsafeRawBufferPointer($0)], offset: offset)
      }
    }
    try image.close()
  }

  func open(_ lock: Lock) throws -> any DiskImage {
    if isRaw {
      return try RawImage(
        path: path, use: .disk, isReadOnly: false, deviceLock: { lock.withLock($0) })
    }
    return try Qcow2Disk(
      path: path, isReadOnly: false, BackingPolicy(), deviceLock: { lock.withLock($0) })
  }
}

private func measure(
  _ image: BenchImage, _ workload: DiskDriver.Workload, _ settings: Settings
) throws -> [Comparison] {
  var (split, packed, peer) = (DiskSamples(), DiskSamples(), DiskSamples())
  for _ in 0..<settings.turns {
    split.add(try driveImage(image, workload, settings, packed: false))
    peer.add(try driveDaemon(image, workload, settings))
    // How a ring is laid out has nothing to do with what the image is.
    if image.isRaw { packed.add(try driveImage(image, workload, settings, packed: true)) }
  }
  let scale = workload.isRandom ? 1 : Double(workload.blockSize) / 1_048_576
  let rings = [("split", split)] + (image.isRaw ? [("packed", packed)] : [])
  return rings.flatMap { ring, samples in
    [
      Comparison(
        "virtio-blk\(image.isRaw ? "" : " of qcow2") \(workload.name), \(ring) ring, "
          + "\(workload.depth) deep",
        unit: workload.isRandom ? "/s" : "MiB/s", ours: samples.rate.median * scale,
        peer: peer.rate.median * scale, bound: 1, higherIsBetter: true),
      Comparison(
        "  CPU for each, the driver's included", unit: "us", ours: samples.cost.median,
        peer: peer.cost.median),
    ]
  }
}

private struct DiskSamples {
  var rate = Samples()
  var cost = Samples()

  mutating func add(_ sample: (rate: Double, cost: Double)) {
    rate.add(sample.rate)
    cost.add(sample.cost)
  }
}

private func driveImage(
  _ subject: BenchImage, _ workload: DiskDriver.Workload, _ settings: Settings, packed: Bool
) throws -> (rate: Double, cost: Double) {
  let driver = try DiskDriver(workload, imageSize: subject.size, packed: packed)
  let lock = Lock()
  let image = try subject.open(lock)
  defer { image.close() }
  let device = try LocalDevice(
    VirtioBlock(backend: image, serial: "BENCH", state: nil), driver.memory, lock: lock,
    rings: [driver.ring],
    features: DiskDriver.features | (packed ? VirtioFeature.ringPacked : 0))
  defer { device.stop() }
  return try device.explained { try driver.run(device.doorway, seconds: settings.secondsPerTurn) }
}

private func driveDaemon(
  _ image: BenchImage, _ workload: DiskDriver.Workload, _ settings: Settings
) throws -> (rate: Double, cost: Double) {
  let driver = try DiskDriver(workload, imageSize: image.size, packed: false)
  let daemon = try VhostUserDisk(
    image: image.path, format: image.format, driver.memory, ring: driver.ring,
    features: DiskDriver.features)
  defer { daemon.stop() }
  return try driver.run(
    daemon.doorway, helper: daemon.processIdentifier, seconds: settings.secondsPerTurn)
}

extension LocalDevice {
  /// What `body` throws, or what the device has against its driver.
  func explained<Result>(_ body: () throws -> Result) throws -> Result {
    do {
      return try body()
    } catch {
      throw complaint.map { BenchError("\($0); \(error)") } ?? error
    }
  }
}
