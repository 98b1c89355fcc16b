import Brokering
import Foundation
import LinuxSystem
import Supervisor
import TestSupport
import Testing

private let office = DesktopID(rawValue: "office-1")

/// A desktop with many images under its disk that no snapshot needs.
@Suite("Merging of a disk at a start", .needsKVM, .needs("qemu-img", "qemu-io"), .serialized)
struct MergingTests {
  private static let layers = 14
  private static let share = 24

  /// A supervisor with the desktop's images: each has so many MiB of its own.
  private func prepare() throws -> RunningSupervisor {
    let running = try RunningSupervisor()
    let images = running.settings.stateDirectory + "/images/office"
    for path in [images, state(running)] {
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    }
    let made = try running.directory.run(
      """
      set -e
      truncate -s 512M \(images)/image.raw
      cd \(state(running))
      base=\(images)/image.raw format=raw
      for n in $(seq \(Self.layers)); do
        qemu-img create -q -f qcow2 -b $base -F $format disk-$n.qcow2
        qemu-io -c "write -q -P $n $((n * \(Self.share)))M \(Self.share)M" disk-$n.qcow2
        base=disk-$n.qcow2 format=qcow2
      done
      """)
    try #require(made.status == 0, "\(made.output)")
    return running
  }

  private func state(_ running: RunningSupervisor) -> String {
    running.settings.stateDirectory + "/desktops/office-1"
  }

  private func layers(_ running: RunningSupervisor) throws -> Int {
    try FileManager.default.contentsOfDirectory(atPath: state(running))
      .count { $0.hasPrefix("disk-") }
  }

  private func request(
    _ running: RunningSupervisor, generation: UInt64
  ) -> LaunchRequest {
    LaunchRequest(
      desktop: office, generation: generation,
      image: Image(
        kind: .disk, path: running.settings.stateDirectory + "/images/office/image.raw"),
      memoryMiB: 16, cpus: 1, disk: .keep, user: nil, keyboardLayout: "en-us")
  }

  /// That the disk reads as it did, and is sound.
  private func check(_ running: RunningSupervisor) throws {
    let reads = (1...Self.layers).map {
      "-c 'read -q -P \($0) \($0 * Self.share)M \(Self.share)M'"
    }.joined(separator: " ")
    let top = "\(state(running))/disk-\(Self.layers).qcow2"
    let (status, output) = try running.directory.run(
      "qemu-io \(reads) -c 'read -q -P 0 0 \(Self.share)M' \(top)")
    #expect(status == 0 && !output.contains("failed"), "\(output)")
    let checked = try running.directory.run("qemu-img check -f qcow2 \(top)")
    // Lost room is no error.
    #expect(checked.status == 0 || checked.status == 3, "\(checked.output)")
  }

  /// Returns once some of the merging is done.
  private func awaitMerging(_ supervisor: Supervisor) async {
    for await progress in supervisor.progress {
      if case .mergingDisk(let percent) = progress.step, percent > 0 { return }
    }
  }

  @Test("is told in percents, and then the desktop runs")
  func whole() async throws {
    let running = try prepare()
    try await running.supervisor.start(request(running, generation: 1))
    var percents: [Int] = []
    for await progress in running.supervisor.progress {
      guard case .mergingDisk(let percent) = progress.step else {
        #expect(progress.step == .switchingOn)
        break
      }
      percents.append(percent)
    }
    #expect(percents.first == 0 && percents.last == 100 && percents == percents.sorted())
    #expect(percents.count > 20)
    try await running.supervisor.stop(office, graceSeconds: nil)
    #expect(try layers(running) == 8)
    try check(running)
  }

  @Test("ends when the desktop is stopped, and the next start goes on with it")
  func stopped() async throws {
    let running = try prepare()
    let start = Task { try await running.supervisor.start(request(running, generation: 1)) }
    await awaitMerging(running.supervisor)
    try await running.supervisor.stop(office, graceSeconds: 60)
    let error = await #expect(throws: LaunchError.self) { try await start.value }
    #expect(error?.context.contains("given up") == true)
    #expect(try layers(running) > 8)
    try check(running)
    try await running.supervisor.start(request(running, generation: 2))
    try await running.supervisor.stop(office, graceSeconds: nil)
    #expect(try layers(running) == 8)
    try check(running)
  }

  @Test("ends when carreld does, whose next one knows of no start that failed")
  func carreldEnds() async throws {
    let running = try prepare()
    let start = Task { try await running.supervisor.start(request(running, generation: 1)) }
    await awaitMerging(running.supervisor)
    start.cancel()
    await #expect(throws: LaunchError.self) { try await start.value }
    #expect(try layers(running) > 8)
    try check(running)
    let next = try RunningSupervisor(after: running)
    #expect(
      try await next.supervisor.survey() == [
        Survivor(desktop: office, generation: 0, state: .ended(nil))
      ])
    try await next.supervisor.start(request(next, generation: 1))
    try await next.supervisor.stop(office, graceSeconds: nil)
    #expect(try layers(next) == 8)
    try check(next)
  }

  @Test("ends when the desktop is discarded, and so does the copy of an image")
  func discarded() async throws {
    let running = try prepare()
    let start = Task { try await running.supervisor.start(request(running, generation: 1)) }
    await awaitMerging(running.supervisor)
    try await running.supervisor.discard(office)
    await #expect(throws: LaunchError.self) { try await start.value }
    #expect(!Files.exists(state(running)))

    let image = running.directory.path("image.raw")
    let (status, output) = try running.directory.run("head -c 600M /dev/zero > image.raw")
    try #require(status == 0, "\(output)")
    let copying = LaunchRequest(
      desktop: office, generation: 2, image: Image(kind: .disk, path: image), memoryMiB: 16,
      cpus: 1, disk: .fresh, user: nil, keyboardLayout: "en-us")
    let second = Task { try await running.supervisor.start(copying) }
    for await progress in running.supervisor.progress {
      if case .copyingDisk = progress.step { break }
    }
    try await running.supervisor.stop(office, graceSeconds: nil)
    await #expect(throws: LaunchError.self) { try await second.value }
    let left = try FileManager.default.contentsOfDirectory(atPath: state(running))
    #expect(!left.contains("disk.raw.new"), "\(left)")
    try await running.supervisor.discard(office)
  }
}
