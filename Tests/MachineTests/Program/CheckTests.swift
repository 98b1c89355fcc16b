import Glibc
import LinuxSystem
import Machine
import QMP
import TestSupport
import Testing

@Suite("Looking at the host")
struct CheckTests {
  private struct Outcome {
    let status: Int
    let document: JSON

    subscript(name: String) -> JSON? {
      document["checks"]?.elements?.first { $0["name"]?.text == name }
    }
  }

  /// Runs `carrel-vmm check --json` after a mount that nobody else sees.
  private func check(mount: String = "true") throws -> Outcome {
    let directory = try TemporaryDirectory()
    let command = "\(mount) && \(Programs.built("carrel-vmm")) check --json"
    let (status, output) = try directory.run("unshare -m /bin/sh -c '\(command)'")
    return Outcome(status: status, document: try JSON(parsing: Array(output.utf8)))
  }

  @Test(
    "a host with everything is fine", .needsKVM, .needsRoot)
  func good() throws {
    let outcome = try check()
    #expect(outcome.status == 0)
    #expect(outcome.document["ok"] == true)
    let checks = try #require(outcome.document["checks"]?.elements)
    let isInterpreted = Files.exists("/sys/module/kvm_pvm")
    #expect(
      checks.compactMap { $0["name"]?.text } == [
        "kvm", "kvm-api", "kvm-capabilities", "host",
      ] + (isInterpreted ? ["completion"] : []) + ["firmware", "vga-bios", "still-screens"])
    for check in checks {
      #expect(check["ok"] == true)
      #expect(check["remedy"] == "")
      #expect(check["text"]?.text?.isEmpty == false)
    }
    #expect(outcome["host"]?["text"]?.text?.contains("kvm_pvm") == isInterpreted)
  }

  @Test(
    "what is missing is named with a remedy, and the rest is looked at all the same",
    .needsKVM, .needsRoot,
    arguments: [
      ("mount -t tmpfs none /dev", "kvm", "there is no /dev/kvm", "kvm_intel"),
      (
        "mount --bind /dev/zero /dev/kvm", "kvm-api", "/dev/kvm is not KVM's device", "kvm_intel"
      ),
      (
        "mount --bind /sys/kernel/uevent_seqnum /dev/kvm", "kvm", "/dev/kvm may not be opened",
        "group"
      ),
      (
        "mount -t tmpfs none /usr/share/seabios", "firmware",
        "the firmware /usr/share/seabios/bios-256k.bin could not be read", "seabios"
      ),
      (
        "mount --bind /dev/null /usr/share/seabios/vgabios-stdvga.bin", "vga-bios",
        "the VGA BIOS /usr/share/seabios/vgabios-stdvga.bin is empty", "seabios"
      ),
    ])
  func bad(mount: String, name: String, text: String, remedy: String) throws {
    let outcome = try check(mount: mount)
    #expect(outcome.status == 1)
    #expect(outcome.document["ok"] == false)
    let check = try #require(outcome[name])
    #expect(check["ok"] == false)
    #expect(check["text"]?.text == text)
    #expect(check["remedy"]?.text?.contains(remedy) == true)
    #expect(outcome["firmware"] != nil)
  }

  @Test("people get a line for each check, and the remedy below")
  func text() throws {
    let directory = try TemporaryDirectory()
    let (status, output) = try directory.run("\(Programs.built("carrel-vmm")) check")
    #expect(status == (HostCheck.all().allSatisfy(\.isOK) ? 0 : 1))
    for check in HostCheck.all() {
      #expect(output.contains("\(check.isOK ? "ok  " : "FAIL")  \(check.name): \(check.text)\n"))
      #expect(check.isOK == check.remedy.isEmpty)
    }
  }
}
