import Devices
import Disk
import Foundation
import LinuxSystem

/// virtio-blk over a raw image beside qemu-storage-daemon's vhost-user-blk export of the
/// same file, which is in the page cache. One driver in this process, with the same ring,
/// requests and queue depth, drives both; each wakes the other by eventfd, as KVM would.
/// The daemon has no packed rings, so those stand beside its split ring.
func measureDisks(_ settings: Settings) throws -> [Comparison] {
  let size = 256 << 20
  try FileManager.default.createDirectory(atPath: "build", withIntermediateDirectories: true)
  let image = "build/carrel-bench-\(getpid()).img"
  try ImageMark.write(image, size: size)
  defer { unlink(image) }
  let workloads = [
    DiskDriver.Workload(
      name: "random read of 4 KiB", isWrite: false, isRandom: true, blockSize: 4096, depth: 32),
    DiskDriver.Workload(
      name: "random write of 4 KiB", isWrite: true, isRandom: true, blockSize: 4096, depth: 32),
    DiskDriver.Workload(
      name: "sequential read", isWrite: false, isRandom: false, blockSize: 256 << 10, depth: 8),
    DiskDriver.Workload(
      name: "sequential write", isWrite: true, isRandom: false, blockSize: 256 << 10, depth: 8),
  ]
  return try workloads.flatMap { workload in
    var (split, packed, peer) = (DiskSamples(), DiskSamples(), DiskSamples())
    for _ in 0..<settings.turns {
      split.add(try driveImage(image, size, workload, settings, packed: false))
      peer.add(try driveDaemon(image, size, workload, settings))
      packed.add(try driveImage(image, size, workload, settings, packed: true))
    }
    let scale = workload.isRandom ? 1 : Double(workload.blockSize) / 1_048_576
    return [("split", split), ("packed", packed)].flatMap { format, samples in
      [
        Comparison(
          "virtio-blk \(workload.name), \(format) ring, \(workload.depth) deep",
          unit: workload.isRandom ? "/s" : "MiB/s", ours: samples.rate.median * scale,
          peer: peer.rate.median * scale, bound: 1, higherIsBetter: true),
        Comparison(
          "  CPU for each, the driver's included", unit: "us", ours: samples.cost.median,
          peer: peer.cost.median),
      ]
    }
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
  _ path: String, _ size: Int, _ workload: DiskDriver.Workload, _ settings: Settings, packed: Bool
) throws -> (rate: Double, cost: Double) {
  let driver = try DiskDriver(workload, imageSize: size, packed: packed)
  let lock = Lock()
  let image = try RawImage(
    path: path, use: .disk, isReadOnly: false, deviceLock: { lock.withLock($0) })
  defer { image.close() }
  let device = try LocalDevice(
    VirtioBlock(backend: image, serial: "BENCH", state: nil), driver.memory, lock: lock,
    rings: [driver.ring],
    features: DiskDriver.features | (packed ? VirtioFeature.ringPacked : 0))
  defer { device.stop() }
  return try device.explained { try driver.run(device.doorway, seconds: settings.secondsPerTurn) }
}

private func driveDaemon(
  _ path: String, _ size: Int, _ workload: DiskDriver.Workload, _ settings: Settings
) throws -> (rate: Double, cost: Double) {
  let driver = try DiskDriver(workload, imageSize: size, packed: false)
  let daemon = try VhostUserDisk(
    image: path, driver.memory, ring: driver.ring, features: DiskDriver.features)
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
