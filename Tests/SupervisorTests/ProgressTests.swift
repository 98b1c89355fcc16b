import Brokering
import LinuxSystem
import Supervisor
import TestSupport
import Testing

@Suite("The progress of a start", .needsKVM)
struct ProgressTests {
  @Test("a disk is told as it is copied, then that the VMM runs")
  func disk() async throws {
    let running = try RunningSupervisor()
    let image = running.directory.path("image.raw")
    let file = try FileDescriptor.open(image, [.writable, .create])
    try file.writeAll([UInt8](repeating: 0x55, count: 1 << 20))
    try file.setSize(256 << 20)
    try await running.supervisor.start(
      LaunchRequest(
        desktop: DesktopID(rawValue: "office-1"), generation: 3,
        image: Image(kind: .disk, path: image), memoryMiB: 16, cpus: 1, disk: .fresh, user: nil,
        keyboardLayout: "en-us"))
    var percents: [Int] = []
    for await progress in running.supervisor.progress {
      #expect(progress.desktop.rawValue == "office-1" && progress.generation == 3)
      guard case .copyingDisk(let percent) = progress.step else { break }
      percents.append(percent)
    }
    #expect(percents.first == 0 && percents.last == 100)
    #expect(percents.count > 3, "\(percents)")
    #expect(percents == percents.sorted())
    try await running.supervisor.discard(DesktopID(rawValue: "office-1"))
  }

  @Test("a kernel has no disk to copy")
  func kernel() async throws {
    let running = try RunningSupervisor()
    try await running.supervisor.start(try running.request())
    for await progress in running.supervisor.progress {
      #expect(progress.step == .switchingOn)
      break
    }
    try await running.supervisor.discard(DesktopID(rawValue: "office-1"))
  }
}
