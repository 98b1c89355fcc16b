import Foundation

/// The small Linux that `make guest-linux` builds, from process start to its prompt. Once,
/// as that takes minutes where kernels are interpreted.
func measureLinuxBoot(_ settings: Settings) throws -> [Comparison] {
  guard let linux = LinuxFiles() else { return [] }
  _ = try Subject.locate(LinuxFiles.qemu)
  let ours = try LinuxRun(linux, .carrel, settings)
  let boot = try ours.awaitPrompt(seconds: 900)
  ours.subject.stop()
  let name = "process start to the small Linux's prompt"
  let peer = try LinuxRun(linux, .qemu, settings)
  defer { peer.subject.stop() }
  do {
    let theirs = try peer.awaitPrompt(seconds: max(60, 3 * boot))
    return [Comparison(name, unit: "s", ours: boot, peer: theirs)]
  } catch let failure as BenchError where failure.kind == .measurement {
    return [
      Comparison(
        name, unit: "s", ours: boot,
        note: "QEMU runs, but the guest does not come to the prompt in it: \(failure)")
    ]
  }
}

/// Memory of the small Linux with X standing still before a viewer. Where QEMU does not boot it,
/// what QEMU holds when it stops is the least that it would have then.
func measureLinuxMemory(_ settings: Settings) throws -> [Comparison] {
  guard let linux = LinuxFiles() else { return [] }
  _ = try Subject.locate(LinuxFiles.qemu)
  let start = Clock.seconds
  let run = try LinuxRun(linux, .carrel, settings)
  _ = try run.awaitPrompt(seconds: 900)
  try run.startDesktop()
  let ours = try run.memory()
  run.subject.stop()
  let peer = try LinuxRun(linux, .qemu, settings)
  defer { peer.subject.stop() }
  var note: String?
  do {
    _ = try peer.awaitPrompt(seconds: max(60, Clock.seconds - start))
    try peer.startDesktop()
  } catch let failure as BenchError where failure.kind == .measurement {
    note =
      "QEMU runs, but the guest does not come so far in it; QEMU has that where it stops:"
      + " \(failure)"
  }
  return [
    Comparison(
      "small Linux with X, beyond guest RAM and VRAM, PSS", unit: "MiB", ours: ours,
      peer: try peer.memory(), bound: 0.5, note: note)
  ]
}

/// What the build made.
private struct LinuxFiles {
  static let qemu = "qemu-system-x86_64"

  let directory = "build/guest-linux/current"
  let commandLine: String

  /// `nil`, and a word about it, when it is not built.
  init?() {
    guard let text = try? String(contentsOfFile: "\(directory)/append", encoding: .utf8) else {
      FileHandle.standardError.write(
        Data("carrel-bench: the small Linux is left out; 'make guest-linux' builds it\n".utf8))
      return nil
    }
    commandLine = text
  }

  /// The same machine from either, as far as they have the same parts.
  func command(_ server: Server, _ settings: Settings, port: Int) -> [String] {
    let (kernel, disk) = ("\(directory)/vmlinux", "\(directory)/initramfs")
    let desktop = "\(directory)/desktop.img"
    switch server {
    case .carrel, .site:
      return [
        settings.vmm, "run", "--memory", "256M", "--kernel", kernel, "--initrd", disk, "--append",
        commandLine, "--disk", "\(desktop),bus=virtio,readonly=on", "--vnc", "127.0.0.1:\(port)",
        "--serial", "stdio",
      ]
    case .qemu:
      return [
        Self.qemu, "-machine", "pc,accel=kvm", "-m", "256", "-kernel", kernel,
        "-initrd", disk, "-append", commandLine, "-drive",
        "file=\(desktop),if=virtio,format=raw,readonly=on",
        "-nodefaults", "-vga", "std", "-display", "none", "-vnc", "127.0.0.1:\(port - 5900)",
        "-serial", "stdio",
      ]
    }
  }
}

private struct LinuxRun {
  let subject: Subject
  private let start: Double
  private let port: Int

  init(_ linux: LinuxFiles, _ server: Server, _ settings: Settings) throws {
    port = try freePort()
    start = Clock.seconds
    subject = try Subject(
      name: server.title, linux.command(server, settings, port: port), isSpokenTo: true)
  }

  /// Seconds from the process's start to the shell's line.
  func awaitPrompt(seconds: Double) throws -> Double {
    // QEMU stays there with a stopped guest.
    try subject.awaitOutput(
      containing: "guest: ready", seconds: seconds, failure: "KVM internal error") - start
  }

  func startDesktop() throws {
    try subject.tell("desktop; echo END:$?\n")
    try subject.awaitOutput(containing: "END:0", seconds: 900)
  }

  /// MiB of the process beyond RAM and VRAM, once its screen stands still before a viewer.
  func memory() throws -> Double {
    let viewer = try VNCPeer(host: "127.0.0.1", port: port, encoding: .zrle)
    try viewer.pump(until: "a picture") { viewer.updates > 0 }
    try idle(viewer, seconds: 3)
    let memory = Subject.proportionalSetSize(of: subject.process.processIdentifier)
    return Double(memory.own) / 1_048_576
  }
}
